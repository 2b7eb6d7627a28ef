"""How long the stages of an opening take."""

from smtp_async.connection.stage_times import STAGES, StageTimes


def test_each_stage_has_the_time_since_the_one_before() -> None:
    now = 100.0
    times = StageTimes(lambda: now)
    for stage, seconds in (
        ("DNS", 0.5),
        ("TCP", 0.25),
        ("", 4.0),
        ("EHLO", 1.0),
        ("TLS", 2.0),
        ("EHLO", 0.5),
    ):
        now += seconds
        times.passed(stage)
    assert times.seconds == {"DNS": 0.5, "TCP": 0.25, "EHLO": 1.5, "TLS": 2.0}
    assert set(times.seconds) < set(STAGES)
