from revocab.reporting import write_sweep
from revocab.reporting.__main__ import main


def test_a_sweep_gets_its_three_files_and_says_who_failed(sweep):
    report = write_sweep(sweep)
    assert report.report == sweep / "report.html"
    assert {path.name for path in sweep.iterdir() if path.is_file()} == {"table.csv", "table.md", "report.html"}
    assert [job.name for job in report.failed] == ["c", "d"]
    assert "optimal" in report.table


def test_a_report_can_be_rebuilt_and_leaves_the_jobs_alone(sweep):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in sweep.glob("*/*")}

    before = stamps()
    write_sweep(sweep)
    first = (sweep / "table.csv").read_text()
    write_sweep(sweep)
    assert (sweep / "table.csv").read_text() == first
    assert stamps() == before


def test_the_command_prints_the_table_and_the_path(sweep, capsys):
    assert main([str(sweep)]) == 0
    assert str(sweep / "report.html") in capsys.readouterr().out


def test_the_command_says_in_one_line_that_a_folder_is_no_sweep(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "is not a sweep" in err
