"""The areas of membership inference, by hand, and what is said of them."""

import pytest

from evaluate.analysis.intervals import auc_interval
from evaluate.audit.attacks import ALL, attack, mean, sentence
from evaluate.audit.by_loss import GAIN, LOSS, means, of_adapter


def test_area_counts_pairs_with_ties_by_half():
    found = attack("a", GAIN, [3.0, 2.0, 1.0], [2.0, 0.0])
    # Of six pairs: 3 beats both, 2 ties and beats, 1 loses and beats.
    assert found.auc == pytest.approx((2 + 1.5 + 1) / 6)
    assert (found.members, found.others) == (3, 2)
    assert found.interval == pytest.approx(auc_interval(4.5 / 6, 3, 2))


def test_everything_given_away_is_one_and_nothing_is_a_half():
    everything = attack("a", GAIN, [float(k) for k in range(10, 30)], [float(k) for k in range(10)])
    assert everything.auc == 1.0
    assert "members are told from others" in sentence(everything)
    nothing = attack("a", GAIN, [0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    assert nothing.auc == 0.5
    assert "not told from chance" in sentence(nothing)
    reverse = attack("a", GAIN, [float(k) for k in range(20)], [float(k) for k in range(20, 40)])
    assert "members score below others" in sentence(reverse)


def test_each_subject_keeps_its_own_scale_in_the_mean():
    first = attack("a", GAIN, [101.0, 99.0], [100.0, 98.0])
    second = attack("b", GAIN, [1.0, 3.0], [2.0, 0.0])
    each, both = (first, second), mean([first, second])
    assert both.subject == ALL
    assert both.auc == pytest.approx((first.auc + second.auc) / 2)
    assert (both.members, both.others) == (4, 4)
    # Independent halves add in squares.
    halves = [one.auc - one.interval[0] for one in each]
    assert both.auc - both.interval[0] == pytest.approx((halves[0] ** 2 + halves[1] ** 2) ** 0.5 / 2)


def measured(file, classes, score, first=0):
    """An adapter whose photos of each class, two members and two others, have losses by ``score``."""
    photos = [
        {
            "sha256": f"{first + k}",
            "label": label,
            "member": member,
            "base": 1.0,
            "adapted": score(label, member),
        }
        for k, (label, member) in enumerate((name, m) for name in classes for m in (True, True, False, False))
    ]
    return {"file": file, "sha256": file, "classes": list(classes), "photos": photos}


def test_classes_of_a_joint_adapter_are_attacked_one_by_one():
    """Their losses differ more than anything that training does to them."""
    joint = measured("joint", ("a", "b"), lambda label, member: 0.5 * (label == "b") + 0.2 - 0.1 * member)
    found = of_adapter(joint)
    assert [(one.subject, one.kind, one.auc) for one in found] == [
        ("joint, a", LOSS, 1.0), ("joint, a", GAIN, 1.0), ("joint, b", LOSS, 1.0), ("joint, b", GAIN, 1.0),
    ]  # fmt: skip
    assert [(one.kind, one.members) for one in means([joint])] == [(LOSS, 4), (GAIN, 4)]


def test_adapters_of_the_same_photos_have_no_mean():
    entries = [measured(name, ("a",), lambda label, member: 1.0 - member) for name in ("x", "y")]
    assert means(entries) == []
    apart = [entries[0], measured("y", ("b",), lambda label, member: 1.0 - member, first=4)]
    assert len(means(apart)) == 2
