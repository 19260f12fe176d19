import json
import os
import socket
from datetime import UTC, datetime, timedelta

import pytest

from revocab.errors import DataError
from revocab.reporting import collect, read_metrics
from revocab.reporting.jobs import JOB_FILES, number, read_job


def by_name(folder):
    return {job.name: job for job in collect(folder)}


def test_jobs_are_read_with_states_errors_and_scores(sweep):
    jobs = by_name(sweep)
    assert {name: job.state for name, job in jobs.items()} == {
        "a": "completed",
        "b": "completed",
        "c": "failed",
        "d": "interrupted",
    }
    assert jobs["c"].error == "no space left"
    assert jobs["a"].bpb("bio.heldout", "final") == 0.88
    assert jobs["a"].bytes_per_token("bio.heldout", "target") == 3.86
    assert jobs["a"].coverage == 0.975
    assert jobs["a"].command == "python train.py preset=paper"
    assert jobs["d"].bpb("bio.heldout", "final") is None
    assert len(jobs["d"].metrics) == 120


def test_jobs_stand_in_order_of_their_start(tmp_path, make_job):
    for name, hour in (("a", 11), ("b", 9), ("c", 10)):
        make_job(tmp_path / name, status={"started": f"2026-11-24T{hour:02d}:00:00+0000"})
    assert [job.name for job in collect(tmp_path)] == ["b", "c", "a"]


@pytest.mark.parametrize("name", JOB_FILES)
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe\x00", b": : :\n- x", b"3"])
def test_a_broken_file_costs_no_more_than_what_it_held(tmp_path, make_job, name, content):
    folder = make_job(tmp_path / "a")
    (folder / name).write_bytes(content)
    (job,) = collect(tmp_path)
    assert job.state in ("completed", "interrupted")
    if name != "summary.json":
        assert job.bpb("bio.heldout", "final") == 0.88


@pytest.mark.parametrize("name", JOB_FILES)
def test_any_file_may_be_missing(tmp_path, make_job, name):
    folder = make_job(tmp_path / "a")
    (folder / name).unlink()
    assert len(collect(tmp_path)) == 1


@pytest.mark.parametrize(
    "summary",
    [
        {"bpb": None, "labels": None, "alignment": None, "stage1": None, "checks": None},
        {"bpb": {"x": None, "y": {"final": None, "init": "1.0"}}, "bytes_per_token": {"x": 3}},
        {"bpb": [], "labels": [], "alignment": 3, "seed": None},
    ],
)
def test_values_of_a_wrong_kind_are_as_good_as_missing(tmp_path, make_job, summary):
    folder = make_job(tmp_path / "a")
    (folder / "summary.json").write_text(json.dumps(summary))
    job = read_job(folder)
    assert job.bpb("y", "init") is None
    assert job.bytes_per_token("x", "source") is None
    assert job.stage("stage1") == {}


def test_nan_is_no_score(tmp_path, make_job):
    folder = make_job(tmp_path / "a", quality=float("nan"))
    assert read_job(folder).bpb("bio.heldout", "final") is None
    assert read_job(folder).bpb("bio.heldout", "init") == 1.42


def test_a_job_whose_process_lives_is_running(tmp_path, make_job):
    now = datetime.now(UTC) + timedelta(seconds=60)
    folder = make_job(tmp_path / "a", state="running", status={"started": now.strftime("%Y-%m-%dT%H:%M:%S%z")})
    assert read_job(folder).state == "running"


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")  # noqa: PTH110
def test_a_process_born_after_the_job_is_another_one(tmp_path, make_job):
    folder = make_job(tmp_path / "a", state="running", status={"started": "2001-01-01T00:00:00+0000"})
    assert read_job(folder).state == "interrupted"


def test_a_process_of_another_machine_is_left_alone(tmp_path, make_job):
    status = {"pid": 2**22 + 1, "host": socket.gethostname() + "-other"}
    assert read_job(make_job(tmp_path / "a", state="running", status=status)).state == "running"


def test_labels_of_a_job_without_summary_come_from_its_config(tmp_path, make_job):
    job = read_job(make_job(tmp_path / "a", labels={"preset": "best"}, summary=False, state="failed"))
    assert job.setting("preset") == "best"
    assert job.setting("vocab.lr_stage1") == 6.4e-4
    assert not job.knows("vocab.unheard_of")


def test_the_command_comes_from_hydra_where_the_job_wrote_none(tmp_path, make_job):
    folder = make_job(tmp_path / "a")
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- preset=paper\n- corpus.inputs=[a b.txt]\n")
    assert read_job(folder).command == "python train.py preset=paper 'corpus.inputs=[a b.txt]'"


def test_steps_that_ran_twice_count_once_and_the_cut_last_line_not_at_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = [("stage1", 1, 5.0), ("stage1", 2, 4.0), ("stage1", 3, 3.0), ("stage1", 2, 4.5), ("stage2", 1, 2.0)]
    lines = [json.dumps({"stage": s, "step": n, "loss": loss}) for s, n, loss in records]
    path.write_text("\n".join([*lines, '{"stage": "sta']))
    problems = []
    read = [(record["stage"], record["step"], record["loss"]) for record in read_metrics(path, problems)]
    assert read == [("stage1", 1, 5.0), ("stage1", 2, 4.5), ("stage1", 3, 3.0), ("stage2", 1, 2.0)]
    assert problems == []


def test_broken_lines_in_the_middle_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('garbage\n{"no": "stage"}\n{"stage": "stage1", "step": 1}\n')
    problems = []
    assert len(read_metrics(path, problems)) == 1
    assert problems == ["metrics.jsonl: 2 broken lines"]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_folders_that_are_no_jobs_are_left_out(sweep):
    (sweep / ".submitit").mkdir()
    (sweep / ".submitit" / "config.yaml").write_text("")
    (sweep / "notes").mkdir()
    (sweep / "table.md").write_text("")
    assert len(collect(sweep)) == 4


def test_what_is_no_sweep_is_an_error(tmp_path, make_job):
    with pytest.raises(DataError, match="No such folder"):
        collect(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not a sweep"):
        collect(tmp_path)
    with pytest.raises(DataError, match="is not a sweep"):
        collect(make_job(tmp_path / "a"))


@pytest.mark.parametrize(("value", "expected"), [(1, 1), (0.5, 0.5), (True, None), ("1", None), (float("inf"), None)])
def test_number(value, expected):
    assert number(value) == expected
