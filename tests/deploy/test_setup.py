import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def fake_pip(setup: ModuleType, script: str) -> None:
    """Put a pip into the test's .venv that runs `script` in a shell."""
    pip = setup.VENV / "bin" / "pip"
    pip.parent.mkdir(exist_ok=True)
    pip.write_text(f"#!/bin/sh\n{script}\n")
    pip.chmod(0o755)


@pytest.mark.parametrize(("kind", "torch"), [("cpu", "torch==2.13.0+cpu"), ("cuda", "torch===2.13.0")])
def test_the_steps_install_torch_pins_tools_and_mailwright(setup: ModuleType, kind: str, torch: str):
    fake_pip(setup, "exit 0")
    names = [what for what, _ in setup.steps(kind)]
    assert names[0] == f"installing {torch}"
    assert names[1].endswith("packages")
    assert names[2:] == ["installing the tests' tools", "installing Mailwright"]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_no_step_lets_pip_resolve_anything(setup: ModuleType, kind: str):
    fake_pip(setup, "exit 0")
    assert all("--no-deps" in arguments for _, arguments in setup.steps(kind))


def test_the_other_pins_are_all_but_torch(setup: ModuleType):
    fake_pip(setup, "exit 0")
    _, arguments = setup.steps("cuda")[1]
    pins = Path(arguments[-1]).read_text().splitlines()
    assert not [line for line in pins if line.startswith(("torch=", "#"))]
    assert "vllm==0.32.0" in pins


def test_torch_comes_from_where_pip_finds_it(setup: ModuleType):
    fake_pip(setup, "exit 0")
    arguments = setup.torch_arguments("torch==2.13.0+cpu")
    assert arguments[:2] == ["--no-deps", "--no-index"]
    assert arguments[-1] == "torch==2.13.0+cpu"


def test_torch_comes_from_its_own_index_where_pip_finds_none(setup: ModuleType):
    fake_pip(setup, "exit 1")
    arguments = setup.torch_arguments("torch==2.13.0+cpu")
    assert arguments == ["--no-deps", "--index-url", "https://download.pytorch.org/whl/cpu", "torch==2.13.0+cpu"]


def test_torch_for_cuda_is_not_looked_for(setup: ModuleType):
    fake_pip(setup, "touch $0.called")
    assert setup.torch_arguments("torch===2.13.0") == ["--no-deps", "torch===2.13.0"]
    assert not (setup.VENV / "bin" / "pip.called").exists()


def test_pip_returns_its_status_and_logs_what_it_says(setup: ModuleType, capsys: Capture):
    fake_pip(setup, "echo Collecting numpy==2; echo 'no space left' >&2; exit 3")
    assert setup.pip("installing numpy", ["numpy"]) == 3
    assert setup.LOG.read_text() == "Collecting numpy==2\nno space left\n"
    assert "installing numpy: |########################| 1/1" in capsys.readouterr().err


def test_the_bar_shows_the_share_and_the_time_left(setup: ModuleType, capsys: Capture, monkeypatch: Patch):
    monkeypatch.setattr(setup.sys.stderr, "isatty", lambda: True)
    setup.bar("installing 8 packages", 2, 8, seconds=10)
    assert f"|{'#' * 6}{' ' * 18}| 2/8,  30 s left" in capsys.readouterr().err


def test_a_bar_in_a_log_file_is_one_line(setup: ModuleType, capsys: Capture):
    setup.bar("installing", 1, 2, 1.0)
    setup.bar("installing", 2, 2, 2.4, end="\n")
    assert capsys.readouterr().err == f"installing: |{'#' * 24}| 2/2, 2 s\n"


def ready_machine(setup: ModuleType, monkeypatch: Patch) -> None:
    monkeypatch.setattr(setup, "find_python", lambda: sys.executable)
    monkeypatch.setattr(setup, "has_libnuma", lambda: True)
    monkeypatch.setattr(setup, "gpu_answers", lambda: False)
    monkeypatch.setattr(setup, "can_compile", lambda _: True)


def test_without_a_compiler_setup_goes_on_and_says_what_that_costs(
    setup: ModuleType, monkeypatch: Patch, capsys: Capture
):
    ready_machine(setup, monkeypatch)
    asked: list[list[str]] = []
    monkeypatch.setattr(setup, "can_compile", lambda _: False)
    monkeypatch.setattr(setup, "install_system_packages", asked.append)
    fake_pip(setup, "exit 0")
    assert setup.set_up() == 0
    assert asked == [["g++", "python3.11-dev"]]
    said = capsys.readouterr().err
    assert "without a compiler the server is slower: sudo apt-get install g++ python3.11-dev\n" in said


def test_what_can_compile_has_a_compiler_and_pythons_headers(setup: ModuleType, monkeypatch: Patch, tmp_path: Path):
    assert setup.can_compile(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not setup.can_compile(sys.executable)


def test_setup_marks_the_environment_as_ready(setup: ModuleType, monkeypatch: Patch, capsys: Capture):
    ready_machine(setup, monkeypatch)
    fake_pip(setup, "exit 0")
    assert setup.set_up() == 0
    assert setup.READY.exists()
    assert capsys.readouterr().err.endswith("ready: .venv with the CPU pins\n")


def test_a_machine_with_a_gpu_gets_the_cuda_pins(setup: ModuleType, monkeypatch: Patch, capsys: Capture):
    ready_machine(setup, monkeypatch)
    monkeypatch.setattr(setup, "gpu_answers", lambda: True)
    fake_pip(setup, "exit 0")
    assert setup.set_up() == 0
    assert "installing torch===2.13.0" in capsys.readouterr().err


def test_a_pip_that_fails_is_an_error_with_its_last_lines_and_a_hint(
    setup: ModuleType, monkeypatch: Patch, capsys: Capture
):
    ready_machine(setup, monkeypatch)
    fake_pip(setup, 'case "$1" in install) echo "ERROR: no space left"; exit 1;; esac')
    assert setup.set_up() == 2
    printed = capsys.readouterr().err
    assert "error: installing torch==2.13.0+cpu failed (pip's exit status 1):\n  ERROR: no space left\n" in printed
    assert f"hint: the whole log is {setup.LOG}" in printed
    assert not setup.READY.exists()


def test_a_missing_libnuma_is_an_error_that_names_the_packages(setup: ModuleType, monkeypatch: Patch, capsys: Capture):
    ready_machine(setup, monkeypatch)
    monkeypatch.setattr(setup, "has_libnuma", lambda: False)
    monkeypatch.setattr(setup, "install_system_packages", lambda _: None)
    assert setup.set_up() == 2
    assert capsys.readouterr().err == (
        "error: vLLM needs libnuma.so.1, which is missing\n"
        "hint: install it: sudo apt-get install python3.11 python3.11-venv libnuma1 curl\n"
    )


def test_system_packages_are_left_alone_where_we_may_not_install(setup: ModuleType, monkeypatch: Patch):
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(setup.subprocess, "run", lambda *_, **__: pytest.fail("it tried to install"))
    setup.install_system_packages(["libnuma1"])


def test_a_missing_python_is_an_error_with_status_2(setup: ModuleType, monkeypatch: Patch, capsys: Capture):
    monkeypatch.setattr(setup, "can_make_venv", lambda _: False)
    monkeypatch.setattr(setup, "install_system_packages", lambda _: None)
    with pytest.raises(SystemExit) as caught:
        setup.find_python()
    assert caught.value.code == 2
    assert "error: Python 3.11 with venv is missing" in capsys.readouterr().err


def test_only_python_3_11_will_do(setup: ModuleType, tmp_path: Path):
    older = tmp_path / "python3"
    older.write_text("#!/bin/sh\nexit 1\n")
    older.chmod(0o755)
    assert not setup.can_make_venv(str(older))
    assert setup.can_make_venv(sys.executable)


@pytest.mark.parametrize(("status", "answer"), [(0, True), (9, False)])
def test_a_gpu_counts_only_where_nvidia_smi_answers(setup: ModuleType, monkeypatch: Patch, status: int, answer: bool):
    monkeypatch.setattr(setup.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(setup.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, status))
    assert setup.gpu_answers() is answer


def test_without_nvidia_smi_there_is_no_gpu(setup: ModuleType, monkeypatch: Patch):
    monkeypatch.setattr(setup.shutil, "which", lambda _: None)
    assert setup.gpu_answers() is False


def test_a_missing_browser_is_an_error_that_names_the_packages(setup: ModuleType, monkeypatch: Patch, capsys: Capture):
    monkeypatch.setattr(setup.shutil, "which", lambda _: None)
    monkeypatch.setattr(setup, "install_system_packages", lambda _: None)
    assert setup.set_up_test_tools() == 2
    assert "hint: install it: sudo apt-get install chromium" in capsys.readouterr().err


def test_prometheus_is_unpacked_into_the_environment_and_not_installed(setup: ModuleType, tmp_path: Path):
    (setup.VENV / "bin").mkdir()
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, script in {
        "apt-get": '[ "$1" = update ] || { [ "$1" = download ] && touch prometheus_2.42.0_amd64.deb; }',
        "dpkg-deb": 'mkdir -p "$3/usr/bin" && touch "$3/usr/bin/prometheus" "$3/usr/bin/promtool"',
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{commands}:/usr/bin:/bin")
        assert setup.unpack_prometheus()
    assert sorted(file.name for file in (setup.VENV / "bin").iterdir()) == ["prometheus", "promtool"]
    assert not (setup.VENV / "debian").exists()


@pytest.fixture
def clients(setup: ModuleType, tmp_path: Path, monkeypatch: Patch) -> Path:
    """The folder of the clients' pins, and commands that only note what they are asked for in `asked`."""
    folder, commands = tmp_path / "clients", tmp_path / "commands"
    for made in (folder, commands, setup.VENV / "bin"):
        made.mkdir()
    for name in ("requirements.txt", "package.json", "package-lock.json"):
        (folder / name).write_text("llm==0.32.1\n")
    note = f'echo "$(basename $0) $*" >> {folder}/asked'
    for file, script in {
        commands / "npm": f"{note}; mkdir -p node_modules",
        setup.VENV / "bin/python": f"mkdir -p $4/bin; printf '#!/bin/sh\\n{note}\\n' > $4/bin/pip; chmod +x $4/bin/pip",
    }.items():
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    monkeypatch.setattr(setup, "CLIENTS", folder)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return folder


def test_the_clients_are_installed_as_they_are_pinned(setup: ModuleType, clients: Path):
    assert setup.set_up_clients() == 0
    pip, npm = (clients / "asked").read_text().splitlines()
    assert pip.startswith("pip install")
    assert "--no-deps" in pip
    assert npm.startswith("npm ci --ignore-scripts")


def test_the_clients_are_installed_again_only_when_their_pins_change(setup: ModuleType, clients: Path):
    assert setup.set_up_clients() == 0
    (clients / "asked").unlink()
    assert setup.set_up_clients() == 0
    assert not (clients / "asked").exists()
    (clients / "package.json").write_text("llm==0.33\n")
    assert setup.set_up_clients() == 0
    assert (clients / "asked").exists()


def test_a_missing_npm_is_an_error_that_names_the_packages(
    setup: ModuleType, clients: Path, monkeypatch: Patch, capsys: Capture
):
    monkeypatch.setattr(setup.shutil, "which", lambda _: None)
    monkeypatch.setattr(setup, "install_system_packages", lambda _: None)
    assert setup.set_up_clients() == 2
    assert "hint: install them: sudo apt-get install nodejs npm" in capsys.readouterr().err


def test_an_npm_that_fails_is_an_error_with_its_last_lines(
    setup: ModuleType, clients: Path, tmp_path: Path, capsys: Capture
):
    (tmp_path / "commands/npm").write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    assert setup.set_up_clients() == 2
    printed = capsys.readouterr().err
    assert "error: installing the Node clients failed (npm's exit status 1):" in printed
    assert "no space left" in printed
    assert setup.set_up_clients() == 2
