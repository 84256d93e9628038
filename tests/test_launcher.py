"""What the processes of a launcher ask each other, without being a group."""

import threading

import pytest
import torch.distributed as dist

from ssl_lens import launcher


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> dist.TCPStore:
    """The environment of the first of two processes, and the table of keys of their launcher."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2", "RANK": "0"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    return store


def test_one_says_what_several_have_to_say(two: dist.TCPStore) -> None:
    assert [launcher.speaks_first(message) for message in ("a", "a", "b")] == [True, False, True]


@pytest.mark.parametrize("name", ["MASTER_ADDR", "MASTER_PORT"])
def test_all_speak_where_they_cannot_ask(two: dist.TCPStore, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    assert [launcher.speaks_first("a") for _ in range(2)] == [True, True]


def test_a_process_alone_always_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert [launcher.speaks_first("a") for _ in range(2)] == [True, True]
    assert (launcher.rank(), launcher.world_size()) == (0, 1)


def test_the_others_enter_when_the_first_has_left(two: dist.TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with launcher.first_rank_first("images"):
        waiting, entered = _enter_as_the_second(monkeypatch)
        assert not entered.wait(0.3)
    assert entered.wait(5)
    waiting.join()


def test_they_enter_after_its_error_too_which_they_meet_themselves(
    two: dist.TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="full"), launcher.first_rank_first("images"):
        raise OSError("full")
    waiting, entered = _enter_as_the_second(monkeypatch)
    assert entered.wait(5)
    waiting.join()


def _enter_as_the_second(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Thread, threading.Event]:
    monkeypatch.setenv("RANK", "1")
    entered = threading.Event()

    def enter() -> None:
        with launcher.first_rank_first("images"):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    return thread, entered
