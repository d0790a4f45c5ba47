"""What a follower's page says of its attempts to publish."""

import math

from trainer.following.metrics import JUDGED, FollowMetrics
from trainer.following.publisher import Offer
from trainer.publish import FAILED, HELD, PUBLISHED


def losses_of(metrics: FollowMetrics) -> dict[str, float]:
    name = "turnpoint_trainer_held_out_loss"
    return {of: metrics.registry.get_sample_value(name, {"of": of}) for of in JUDGED}


def test_the_losses_are_those_of_the_last_attempt_that_was_judged():
    metrics = FollowMetrics()
    assert all(math.isnan(loss) for loss in losses_of(metrics).values())
    judged = {"candidate": 0.5, "live": 0.6, "unconditional": 1.0}
    metrics.note_offer(Offer(PUBLISHED, "", judged, []))
    metrics.note_offer(Offer(FAILED, "", {}, []))
    assert losses_of(metrics) == judged


def test_a_live_version_that_cannot_be_compared_leaves_no_old_loss_behind():
    metrics = FollowMetrics()
    metrics.note_offer(Offer(PUBLISHED, "", dict.fromkeys(JUDGED, 0.5), []))
    metrics.note_offer(Offer(HELD, "", {"candidate": 1.2, "unconditional": 1.0}, []))
    assert math.isnan(losses_of(metrics)["live"])
    assert losses_of(metrics)["candidate"] == 1.2
