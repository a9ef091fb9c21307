"""Problems of a topic's other side are logged once for as long as they last."""

from camseg_ros.diagnostics import Problems


def test_a_problem_is_new_at_its_second_sight_and_again_after_it_was_gone() -> None:
    problems = Problems()
    assert problems.new({"unnamed"}) == []
    assert problems.new({"named", "other"}) == [], (
        "the name was found meanwhile: one problem, another text"
    )
    assert problems.new({"named", "other"}) == ["named", "other"]
    assert problems.new({"named"}) == []
    assert problems.new({"named", "other"}) == []
    assert problems.new({"named", "other"}) == ["other"]
