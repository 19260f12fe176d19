#!/usr/bin/env bash
# The sweeps behind docs/results.md on one GPU, the most telling first; what is finished is skipped when it is run again.
#
#   SOURCE=SMOLLM2_FOLDER TARGET=MISTRAL_V3_FOLDER DATA=FOLDER_OF_BIO_AND_GENERAL scripts/evidence.sh [item ...]
#
# Items, in the order of their worth: changes rates recovery presets stage2 alignments questions long_rates llama3.
# GGUF names a file in SOURCE to read weights from, LLAMA3 a second target tokenizer, JOBS how many jobs share the GPU.
# EXTRA goes to every command, such as EXTRA='vocab.stage1_steps=1250 vocab.stage2_steps=1250' for 100 + 100 steps.
set -uo pipefail
: "${SOURCE:?a folder with the source model}" "${TARGET:?a folder with the target tokenizer}" "${DATA:?a folder of .jsonl.zst}"
common=(logger=none trainer=gpu scale=small "models.source_model=$SOURCE" ${GGUF:+"models.gguf_file=$GGUF"}
  corpus=jsonl "corpus.inputs=[$DATA/bio.train.jsonl.zst]" evaluation.max_samples=300 evaluation.batch_tokens=32768
  "evaluation.datasets=[$DATA/bio.heldout.jsonl.zst,$DATA/general.heldout.jsonl.zst]" 'evaluation.general=[general.heldout]'
  trainer.checkpoint_every_steps=1000 launcher=joblib "hydra.launcher.n_jobs=${JOBS:-2}" ${EXTRA:-})
large=(vocab.batch_size=16 vocab.gradient_accumulation=2) # the same 32 sequences a step in micro-batches that fill a GPU

sweep() { python train.py -m "${common[@]}" "models.target_tokenizer=$TARGET" "$@"; }

changes() { sweep experiment=one_change_at_a_time; }
rates() {
  sweep experiment=learning_rates vocab.batch_size=16 vocab.gradient_accumulation=2,8 \
    vocab.lr_stage1=2e-5,2e-4,6.4e-4,2e-3,5e-3,1e-2 precision=bf16,bf16_pure
}
recovery() { sweep experiment=recovery "${large[@]}"; }
presets() {
  sweep experiment=comparison_table preset=paper,research,optimal,three_hour,best
  sweep experiment=comparison_table_tokens preset=paper,research,optimal,three_hour,best
}
stage2() { sweep experiment=stage2 "${large[@]}"; }
alignments() { sweep experiment=alignments "${large[@]}" vocab.stage2_steps=0; }
questions() { sweep sweep_name=questions "${large[@]}" seed=0,1,2 evaluation.qa=true "evaluation.tasks=[$DATA/qa]"; }
long_rates() {
  sweep sweep_name=long_rates "${large[@]}" vocab.stage1_steps=31250 vocab.stage2_steps=0 vocab.lr_stage1=2e-5,6.4e-4,2e-3
}
llama3() {
  : "${LLAMA3:?a folder with the second target tokenizer}"
  TARGET=$LLAMA3 sweep experiment=comparison_table sweep_name=llama3_presets preset=paper,research,optimal,best
  TARGET=$LLAMA3 sweep experiment=recovery sweep_name=llama3_recovery "${large[@]}"
}

items=("$@")
[ ${#items[@]} -gt 0 ] || items=(changes rates recovery presets stage2 alignments questions long_rates ${LLAMA3:+llama3})
for item in "${items[@]}"; do
  echo "== $item, $(date '+%F %T')"
  "$item" || echo "$item: not all of its jobs finished; the same command goes on with them"
done
