"""`ssl-lens completion` prints a script for the shell."""

import subprocess

import pytest

from ssl_lens.cli import main as cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_that_knows_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert name in script
    assert "pixel-scale-arcsec" in script


def test_bash_reads_it_and_completes(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ask = "source script; COMP_WORDS=(ssl-lens pre); COMP_CWORD=1; COMP_LINE='ssl-lens pre'; {}; echo ${{COMPREPLY[@]}}"
    function = next(line for line in (tmp_path / "script").read_text().splitlines() if line.startswith("complete "))
    command = function.split(" -F ")[1].split()[0]
    done = subprocess.run(
        ["bash", "-c", ask.format(command)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["predict", "pretrain"] or done.stdout.split() == ["pretrain", "predict"]
