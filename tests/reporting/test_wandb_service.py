"""Against a service on this machine that answers as W&B's does: upload of a sweep, runs online, the workspace."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb

from revocab.reporting import collect, finish, log_summary, make_logger, track_sweep
from revocab.reporting.wandb_files import upload_command

KEY = "k" * 40
BIN = Path(sys.executable).parent
needs_command = pytest.mark.skipif(not shutil.which("wandb", path=BIN), reason="wandb's command is missing")
SUMMARY = {
    "bpb": {"heldout": {"source": 0.9, "final": 0.8}},
    "labels": {"preset": "paper"},
    "checks": [
        {"name": "coverage", "value": 0.9, "limit": 0.95, "passed": False},
        {"name": "spikes", "value": 0, "limit": 0, "passed": True},
    ],
}


class Service(BaseHTTPRequestHandler):
    """Keeps what it is sent in `runs`, by id; answers what the client must have to go on."""

    runs: dict
    views: dict
    alerts: list
    refuse_views = False

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if self.path == "/graphql":
            self.answer({"data": self.graphql(json.loads(body))})
        else:  # what else there is tells of the client's own health
            self.answer(self.stream(stream[1], json.loads(body)) if stream else {})

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({})

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, name, body):
        run = self.runs.setdefault(name, {})
        files = body.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            lines = [json.loads(line) for line in history["content"]]
            run["history"] = run.get("history", [])[: history["offset"]] + lines
        if summary := files.get("wandb-summary.json"):
            run["summary"] = json.loads(summary["content"][-1])
        if body.get("complete"):
            run["exit_code"] = body["exitcode"]
        return {}

    def graphql(self, body):
        text, given = body["query"], body.get("variables") or {}
        if "mutation UpsertBucket" in text:
            return self.upsert(given)
        if "query RunResumeStatus" in text:
            return {"model": None}
        if "mutation CreateArtifact " in text:
            return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": {}}}}
        if "mutation CreateRunFiles" in text:
            address = f"http://{self.headers['Host']}/upload"
            files = [{"name": name, "uploadUrl": address} for name in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "mutation NotifyScriptableRunAlert" in text:
            self.alerts.append(given["title"])
            return {"notifyScriptableRunAlert": {"success": True}}
        if "mutation UpsertView2" in text:
            if self.refuse_views:
                return {"upsertView": None}
            inserted = given["name"] not in self.views
            self.views[given["name"]] = given
            return {
                "upsertView": {"view": {"id": f"id of {given['name']}", "name": given["name"]}, "inserted": inserted}
            }
        if "query View(" in text:
            view = self.views.get(given["viewName"])
            node = view and {"id": f"id of {view['name']}", "displayName": view["displayName"], "spec": view["spec"]}
            return {"project": {"allViews": {"edges": [{"node": node}] if node else []}}}
        if "query ArtifactType" in text:
            return {"project": {"artifact": None}}
        if "viewer" in text:
            return {
                "viewer": {
                    "id": "v",
                    "entity": "somebody",
                    "username": "somebody",
                    "flags": "{}",
                    "teams": {"edges": []},
                }
            }
        return None

    def upsert(self, given):
        run = self.runs.setdefault(given["name"], {})
        run |= {key: value for key, value in given.items() if value is not None}
        project = {"name": given["project"], "entity": {"name": given["entity"] or "somebody"}}
        bucket = {"id": "b", "name": given["name"], "displayName": given["displayName"], "config": given["config"]}
        return {"upsertBucket": {"bucket": {**bucket, "project": project, "historyLineCount": 0}, "inserted": True}}


@pytest.fixture
def service(monkeypatch, tmp_path):
    handler = type("Handler", (Service,), {"runs": {}, "views": {}, "alerts": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def job(folder, run_id, kind="wandb_offline", steps=(1, 2, 3)):
    """A job that ends well, with its files."""
    logger = start(folder, run_id, kind)
    for step in steps:
        logger.log_metrics({"stage1/loss": 3.0 / step, "stage1/lr": 0.1}, step=step)
    log_summary(logger, SUMMARY)
    finish(logger)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "status.json").write_text(json.dumps({"state": "completed", "run_id": run_id}))
    return logger


def start(folder, run_id, kind="wandb_offline"):
    return make_logger(
        kind, project="revocab", group="my sweep", name=folder.name, tags=["paper"], run_id=run_id, folder=folder,
        config={"vocab": {"lr_stage1": 2e-5}, "paths": {"output_dir": "/somewhere"}, "command": "python train.py"},
    )  # fmt: skip


def upload(service, command, **environment):
    """Run an upload command in a shell, logged in."""
    environment |= {"WANDB_BASE_URL": service.address, "WANDB_API_KEY": KEY}
    command = command.replace("wandb sync", f"{BIN / 'wandb'} sync", 1)
    done = subprocess.run(
        command, shell=True, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr


def values_of(run):
    return {key: node["value"] for key, node in json.loads(run["config"]).items() if key != "_wandb"}


@needs_command
def test_one_command_uploads_all_runs_of_a_sweep_with_its_table(service, tmp_path):
    sweep = tmp_path / "multirun" / "my sweep"
    for name, run_id in (("a", "aaaa1111"), ("b", "bbbb2222")):
        job(sweep / name, run_id)
    killed = sweep / "c" / "wandb" / "offline-run-20260101_000000-cccc3333" / "run-cccc3333.wandb"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(next((sweep / "a").rglob("*.wandb")).read_bytes()[:200])  # no record of the run itself yet
    (sweep / "c" / "config.yaml").write_text("seed: 0")

    folder = sweep.relative_to(tmp_path)
    for wait in (0, 1.1):  # the sweep ends again, in another second: its table takes the place of the first one
        time.sleep(wait)
        (line,) = track_sweep("wandb_offline", project="revocab", group="my sweep", folder=folder, jobs=collect(sweep))
    said, command = line.split(": ", 1)
    assert said == "Upload all runs"
    assert command == "wandb sync --yes 'multirun/my sweep'/*/wandb"
    assert not service.runs
    upload(service, command)

    table = next(run for run in service.runs.values() if run["jobType"] == "table")
    assert set(service.runs) == {"aaaa1111", "bbbb2222", table["name"]}
    assert {run["groupName"] for run in service.runs.values()} == {"my sweep"}
    run = service.runs["aaaa1111"]
    assert run["exit_code"] == 0
    assert (run["displayName"], run["tags"], run["notes"]) == ("a", ["paper"], "python train.py")
    assert values_of(run) == {"vocab": {"lr_stage1": 2e-5}}
    assert [(line["stage1/step"], line["stage1/loss"]) for line in run["history"]] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert run["summary"]["bpb/heldout/final"] == 0.8
    assert run["summary"]["checks_failed"] == 1
    assert run["summary"]["failed_checks"] == "coverage is 0.9, limit 0.95"
    assert service.alerts == ["Check failed: coverage"] * 2
    assert table["summary"]["comparison"]["nrows"] == 3
    assert table["summary"]["checklist"]["nrows"] == 4


@needs_command
def test_a_resumed_job_is_one_whole_run_of_the_team_of_whoever_uploads_it(service, tmp_path, monkeypatch):
    """Killed after step 3, resumed from the checkpoint of step 2: five steps, none twice, one folder to upload."""
    monkeypatch.setenv("WANDB_ENTITY", "my-team")
    folder = tmp_path / "a"
    killed = train(folder, steps=(1, 2, 3))
    killed.run.finish()
    resumed = train(folder, steps=(3, 4, 5))
    resumed.log_metrics({"stage1/loss": 1 / 4}, step=4)  # the stage is tried again, in the same process
    finish(resumed)
    assert len([run for run in (folder / "wandb").glob("offline-run-*") if run.is_dir()]) == 1
    command = upload_command(Path("a"), sweep=False)
    assert command == 'wandb sync --yes --entity "$WANDB_ENTITY" a/wandb'
    upload(service, command)
    run = service.runs["r1"]
    assert [line["stage1/step"] for line in run["history"]] == [1, 2, 3, 4, 5]
    assert [line["stage1/loss"] for line in run["history"]] == [1.0, 0.5, 1 / 3, 0.25, 0.2]
    assert run["summary"]["stage1/loss"] == {"min": 0.2, "last": 0.2}
    assert run["entity"] == "my-team"


def train(folder, steps):
    """Log some steps as training does: lines beyond the first step are dropped, each line is written, then logged."""
    tracker = start(folder, "r1")
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()[: steps[0] - 1] if path.exists() else []
    for step in steps:
        lines.append(json.dumps({"stage": "stage1", "step": step, "loss": 1 / step}))
        path.write_text("".join(line + "\n" for line in lines))
        tracker.log_metrics({"stage1/loss": 1 / step}, step=step)
    return tracker


@pytest.fixture
def logged_in(service, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", service.address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ENTITY", "my-team")
    wandb.teardown()  # it reads the environment once
    yield service
    wandb.teardown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb-workspaces itself
def test_online_a_sweep_has_its_runs_its_table_and_one_workspace(logged_in, tmp_path):
    sweep = tmp_path / "sweep"
    job(sweep / "a", "aaaa1111", kind="wandb")
    run = logged_in.runs["aaaa1111"]
    assert (run["entity"], run["groupName"], run["exit_code"]) == ("my-team", "my sweep", 0)
    assert [line["stage1/loss"] for line in run["history"]] == [3.0, 1.5, 1.0]

    facts = {"project": "revocab", "group": "my sweep", "folder": sweep, "jobs": collect(sweep)}
    (line,) = track_sweep("wandb", **facts)
    table = next(run for run in logged_in.runs.values() if run["jobType"] == "table")
    assert table["summary"]["comparison"]["nrows"] == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    if importlib.util.find_spec("wandb_workspaces") is None:
        assert line.endswith("Install it: pip install 'revocab[tracking]'")
        return
    (view,) = logged_in.views.values()
    assert line == f"Workspace: {logged_in.address}/my-team/revocab?nw={view['name'][3:-2]}"
    assert (view["entityName"], view["displayName"], view.get("id")) == ("my-team", "revocab: my sweep", None)
    assert_shows_what_is_logged(json.loads(view["spec"]), run, table)

    track_sweep("wandb", **facts)  # renews it
    (view,) = logged_in.views.values()
    assert view["id"] == f"id of {view['name']}"

    logged_in.refuse_views = True
    (line,) = track_sweep("wandb", **facts)
    assert line.startswith("No workspace was made")
    assert "\n" not in line


def assert_shows_what_is_logged(spec, run, table):
    """Axes of curves are those of the runs; what bars and tables show is in a summary."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    panels = {kind: [] for kind in ("Run History Line Plot", "Bar Chart", "Weave")}
    for panel in (panel for section in sections for panel in section["panels"]):
        panels.setdefault(panel["viewType"], []).append(panel["config"])
    axes = {config["xAxis"] for config in panels["Run History Line Plot"]}
    assert axes == {"stage1/step", "stage2/step"}
    for config in panels["Run History Line Plot"]:
        (metric,) = config["metrics"]
        assert metric.split("/")[0] + "/step" == config["xAxis"]
    curves = {metric for config in panels["Run History Line Plot"] for metric in config["metrics"]}
    assert set(run["history"][0]) & curves == {"stage1/loss", "stage1/lr"}
    bars = {metric for config in panels["Bar Chart"] for metric in config["metrics"]}
    assert {"bpb/heldout/final", "bpb/heldout/source", "checks_failed"} <= bars & set(run["summary"])
    assert all(f'"{name}"' in json.dumps(panels["Weave"]) for name in ("comparison", "checklist"))
    assert {"comparison", "checklist"} <= set(table["summary"])
    (runset,) = spec["section"]["runSets"]
    assert '"my sweep"' in json.dumps(runset["filters"])
