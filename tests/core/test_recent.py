"""What was asked for last is kept, and no more than so many."""

from camseg_core.runtime.recent import Recent


def test_values_are_made_once_and_those_not_asked_for_are_forgotten() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    recent: Recent[str, str] = Recent(2)
    assert [recent.get(key, lambda key=key: make(key)) for key in "abacab"] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]
