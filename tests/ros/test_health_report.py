"""Problems of a topic's other side are logged once for as long as they last."""

from camseg_ros.diagnostics import NewProblems


def test_a_problem_is_new_at_its_second_sight_and_again_after_it_was_gone() -> None:
    problems = NewProblems()
    assert problems.of({"unnamed"}) == []
    assert problems.of({"named", "other"}) == [], (
        "the name was found meanwhile: one problem, another text"
    )
    assert problems.of({"named", "other"}) == ["named", "other"]
    assert problems.of({"named"}) == []
    assert problems.of({"named", "other"}) == []
    assert problems.of({"named", "other"}) == ["other"]
