#!/usr/bin/env bash
# The sweeps behind docs/results.md on one machine with GPUs, the most telling first. What is finished is skipped when it
# is run again, what was interrupted goes on.
#
#   SOURCE=SMOLLM2_FOLDER TARGET=MISTRAL_V3_FOLDER DATA=FOLDER_OF_BIO_AND_GENERAL scripts/evidence.sh [item ...]
#
# Items, in the order of their worth: changes rates recovery more_recovery presets stage2 alignments questions research
# long_rates fp8 llama3 llama3_recovery seeds.
# GGUF names a file in SOURCE to read weights from, LLAMA3 a second target tokenizer, GPUS the GPUs ("0 1"), JOBS how many
# commands share each. A command waits until a place is free; each trains its jobs one after another. LOGS: a folder for
# what they print. EXTRA goes to every command, such as EXTRA='vocab.max_seq_length=64'.
set -uo pipefail
: "${SOURCE:?a folder with the source model}" "${TARGET:?a folder with the target tokenizer}" "${DATA:?a folder of .jsonl.zst}"
read -ra gpus <<<"${GPUS:-0}"
jobs=${JOBS:-2} logs=${LOGS:-multirun/_logs}
common=(logger=none trainer=gpu scale=small "models.source_model=$SOURCE" ${GGUF:+"models.gguf_file=$GGUF"}
  corpus=jsonl "corpus.inputs=[$DATA/bio.train.jsonl.zst]" evaluation.max_samples=300 evaluation.batch_tokens=16384
  "evaluation.datasets=[$DATA/bio.heldout.jsonl.zst,$DATA/general.heldout.jsonl.zst]" 'evaluation.general=[general.heldout]'
  trainer.checkpoint_every_steps=1000 evaluation.every_steps=0)
# Micro-batches that fill a GPU; the sequences of a step are those of the settings compared, 32 or the paper's 16 of scale=small.
of32="vocab.batch_size=16 vocab.gradient_accumulation=2" of16="vocab.batch_size=16 vocab.gradient_accumulation=1"
of8="vocab.batch_size=8 vocab.gradient_accumulation=1"
half="scale.step_factor=0.04" # 100 + 100 steps; else 200 + 200
short="$half vocab.probe_steps=0"

queue=() # of commands, as lines
sweep() { queue+=("models.target_tokenizer=$TARGET $*"); }

changes() {
  local seed
  for seed in 0 1 2; do
    sweep experiment=one_change_at_a_time $short seed=$seed "$of16" change=paper,lr_stage1,offset,lora,shuffle,threshold,pivots
    sweep experiment=one_change_at_a_time $short seed=$seed "$of32" change=batch,optimal
  done
}
rates() {
  local rates=vocab.lr_stage1=2e-5,2e-4,6.4e-4,2e-3,5e-3,1e-2 precision
  for precision in bf16 bf16_pure; do
    sweep experiment=learning_rates $short "$of32" $rates precision=$precision
    sweep experiment=learning_rates $short "$of8" $rates precision=$precision
  done
}
recovered="experiment=recovery $of32 evaluation.every_steps=50" # 100 + 900 steps
long_stage1="vocab.stage1_steps=2500 vocab.stage2_steps=10000" # 200 + 800
recovery() { sweep "$recovered" vocab.lr_stage2=5e-4 $long_stage1; } # its seconds are shown: with JOBS=1, and nothing else on the GPU
more_recovery() { # a shorter stage 1, with tables that keep their high rate in stage 2, and a higher rate
  local tables=vocab.lr_tables=2e-3
  sweep "$recovered" vocab.lr_stage2=5e-4
  sweep "$recovered" vocab.lr_stage2=5e-4 $tables
  sweep "$recovered" vocab.lr_stage2=1e-3 $long_stage1
  sweep "$recovered" vocab.lr_stage2=1e-3
  sweep "$recovered" vocab.lr_stage2=5e-4 vocab.stage1_steps=313 vocab.stage2_steps=12187 $tables
}
presets() {
  sweep experiment=comparison_table $short "$of32" preset=best,optimal
  sweep experiment=comparison_table $short "$of16" preset=paper
  sweep experiment=comparison_table_tokens $short "$of32" preset=paper
  sweep experiment=comparison_table $short "$of32" preset=three_hour
}
research() { sweep experiment=comparison_table $short "$of32" preset=research; } # in float32: five times as long
stage2() {
  local kind
  for kind in full r64 r64_tables first_last; do sweep experiment=stage2 $short "$of32" lora=$kind vocab.lr_stage2=5e-5,2e-4,5e-4,1e-3; done
  sweep experiment=stage2 $short "$of32" lora=r64,r64_tables vocab.lr_stage2=2e-3,5e-3,1e-2
  sweep experiment=stage2 $short "$of32" lora=r64 vocab.lr_stage2=2e-2
  sweep experiment=stage2 $short "$of32" lora=full vocab.lr_stage2=5e-4 vocab.lr_tables=2e-3
}
aligned="experiment=alignments $half $of32 vocab.stage2_steps=1250 vocab.lr_stage2=2e-4" # 100 + 50 steps
seeds() { # of what ended within 2 % of one another, and of the goal of the recovery
  local seed
  sweep experiment=stage2 $short "$of32" lora=full vocab.lr_stage2=5e-4,1e-3 seed=1,2
  sweep experiment=stage2 $short "$of32" lora=r64,r64_tables vocab.lr_stage2=2e-3 seed=1,2
  sweep "$aligned" alignment=contextual,mixed,subtoken seed=1,2
  sweep "$aligned" alignment=omp,tokalign_paper,exact seed=1,2
  for seed in 1 2; do sweep "$recovered" vocab.lr_stage2=5e-4 seed=$seed; done
}
fp8() { # beside bfloat16, with curves of the score
  sweep sweep_name=fp8 $short "$of32" lora=r64 vocab.lr_stage2=5e-4 evaluation.every_steps=10 precision=bf16,fp8
}
alignments() {
  sweep "$aligned" alignment=contextual,mixed,mixed_t020,mixed_t040,mixed_t060
  sweep "$aligned" alignment=mean,tokalign_code,focus,procrustes,procrustes_one
  sweep "$aligned" alignment=omp,subtoken,subtoken_length,subtoken_ends
  sweep "$aligned" alignment=random,exact,tokalign_paper
}
questions() {
  local seed
  for seed in 0 1 2; do
    sweep sweep_name=questions "$of32" vocab.probe_steps=0 seed=$seed evaluation.qa=true evaluation.qa_samples=1500 "evaluation.tasks=[$DATA/qa]"
  done
}
long_rates() {
  local rate
  for rate in 2e-5 2e-3 6.4e-4; do
    sweep sweep_name=long_rates "$of32" vocab.probe_steps=0 evaluation.every_steps=100 vocab.stage1_steps=31250 vocab.stage2_steps=0 vocab.lr_stage1=$rate
  done
}
llama3() {
  local TARGET=${LLAMA3:?a folder with the second target tokenizer}
  sweep experiment=comparison_table sweep_name=llama3_presets $short "$of32" preset=best,optimal
  sweep experiment=comparison_table sweep_name=llama3_presets $short "$of16" preset=paper
}
llama3_recovery() {
  local TARGET=${LLAMA3:?a folder with the second target tokenizer}
  sweep "$recovered" sweep_name=llama3_recovery vocab.lr_stage2=5e-4
}

items=("$@")
[ ${#items[@]} -gt 0 ] || items=(changes rates recovery more_recovery presets stage2 alignments questions research long_rates fp8 ${LLAMA3:+llama3 llama3_recovery} seeds)
for item in "${items[@]}"; do "$item"; done

# Every GPU has a token for each command it takes at a time; a command takes one, and gives it back when it has ended.
mkdir -p "$logs"
places=$(mktemp -u) && mkfifo "$places" && exec 9<>"$places" && rm "$places"
for ((place = 0; place < jobs; place++)); do printf '%s\n' "${gpus[@]}" >&9; done
number=0
for line in "${queue[@]}"; do
  read -ru 9 gpu
  printf -v name '%03d' $((number++))
  echo "$(date '+%T') GPU $gpu, $logs/$name.txt: $line"
  (
    # shellcheck disable=SC2086  # options hold no spaces
    CUDA_VISIBLE_DEVICES=$gpu python train.py -m "${common[@]}" $line ${EXTRA:-} >"$logs/$name.txt" 2>&1 9>&- ||
      echo "$(date '+%T') $logs/$name.txt: not all of its jobs finished; the same command goes on with them"
    echo "$gpu" >&9
  ) &
done
wait
