from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.audio.freshness import PlayoutClock, TransitClock

steps = st.lists(st.tuples(st.floats(0, 0.7), st.floats(-1, 1)), min_size=1, max_size=80)


class TestTransitClock:
    def test_the_first_frame_is_in_time_whatever_its_timestamp(self) -> None:
        assert TransitClock().lateness(1e6, 0.02) == 0.0

    @pytest.mark.parametrize("offset", [0.0, -1e5, 1e5])
    def test_lateness_is_the_delay_beyond_the_quickest_frame(self, offset: float) -> None:
        clock = TransitClock()
        arrivals = [0.00, 0.02, 0.09, 0.10, 0.11]  # 20 ms frames; the third and after are held up, then recover
        late = [clock.lateness(at + offset, n * 0.02) for n, at in enumerate(arrivals)]
        assert late == pytest.approx([0, 0, 0.05, 0.04, 0.03], abs=1e-9)

    def test_a_quicker_frame_becomes_the_measure(self) -> None:
        clock = TransitClock()
        clock.lateness(10.0, 0.0)
        assert clock.lateness(10.01, 0.06) == 0.0
        assert clock.lateness(10.07, 0.08) == pytest.approx(0.04)

    def test_a_burst_after_a_stall_is_late_from_its_oldest_frame_down(self) -> None:
        clock = TransitClock()
        clock.lateness(0.0, 0.0)
        burst = [clock.lateness(1.0, n * 0.02) for n in range(1, 51)]
        assert burst == pytest.approx([1.0 - n * 0.02 for n in range(1, 51)])

    def test_a_lasting_change_is_the_new_normal_after_two_seconds(self) -> None:
        clock = TransitClock()
        for n in range(100):
            clock.lateness(n * 0.02, n * 0.02)
        # From now on everything takes 300 ms longer.
        late = [clock.lateness(n * 0.02 + 0.3, n * 0.02) for n in range(100, 300)]
        first_good = next(n for n, value in enumerate(late) if value < 0.001)
        assert late[0] == pytest.approx(0.3)
        assert first_good * 0.02 == pytest.approx(2.0 - 0.3, abs=0.05)
        assert max(late[first_good:]) < 0.001

    def test_the_frame_of_exactly_two_seconds_ago_still_counts(self) -> None:
        clock = TransitClock()
        clock.lateness(0.0, 0.0)
        assert clock.lateness(1.0, 0.5) == 0.5
        assert clock.lateness(2.0, 1.5) == 0.5
        assert clock.lateness(2.25, 1.5) == 0.25

    @pytest.mark.parametrize("stall", [0.5, 2.0, 10.0])
    def test_of_all_that_comes_at_once_after_a_stall_only_the_newest_is_new(self, stall: float) -> None:
        clock = TransitClock()
        for frame in range(10):
            clock.lateness(frame / 50, frame / 50)
        held_up = range(10, 10 + round(stall * 50))
        late = [clock.lateness(0.2 + stall, frame / 50) for frame in held_up]
        assert late == pytest.approx([0.2 + stall - frame / 50 for frame in held_up])

    def test_a_sender_whose_clock_stood_still_in_a_pause_is_the_new_normal_after_a_second(self) -> None:
        clock = TransitClock()
        for frame in range(50):
            clock.lateness(frame / 50, frame / 50)
        late = [clock.lateness(10 + frame / 50, 1 + frame / 50) for frame in range(100)]
        assert late[0] == pytest.approx(9)
        assert late[-1] == pytest.approx(0, abs=1e-6)
        assert sum(lateness > 0.2 for lateness in late) <= 52

    def test_a_drifting_clock_never_counts_as_late(self) -> None:
        clock = TransitClock()
        # The sender's clock is 0.1 % slow; after ten minutes it is 600 ms behind.
        late = [clock.lateness(n * 0.02, n * 0.02 * 0.999) for n in range(30_000)]
        assert max(late) < 0.0025

    @given(steps)
    def test_is_the_windowed_minimum(self, moves: list[tuple[float, float]]) -> None:
        clock = TransitClock()
        arrived, seen = 0.0, []
        for step, jump in moves:
            arrived += step
            timestamp = arrived + jump
            seen.append((arrived, arrived - timestamp))
            best = min(transit for at, transit in seen if at >= arrived - 2.0)
            assert clock.lateness(arrived, timestamp) == seen[-1][1] - best

    def test_a_flood_takes_no_memory_and_stays_right(self) -> None:
        clock = TransitClock()
        tracemalloc.start()
        try:
            # Each frame is later than the one before, so that each could be the next minimum.
            late = [clock.lateness(n * 1e-5, 0.0) for n in range(100_000)]
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert late[-1] == pytest.approx(0.99999)
        assert held - 100_000 * (8 + 24) < 200_000


class TestPlayoutClock:
    def test_nothing_sent_nothing_ahead(self) -> None:
        clock = PlayoutClock()
        assert [clock.ahead(now) for now in (-5.0, 0.0, 1e9)] == [0.0, 0.0, 0.0]

    def test_what_is_sent_is_played_in_real_time(self) -> None:
        clock = PlayoutClock()
        clock.sent(10.0, 0.2)
        assert [clock.ahead(now) for now in (10.0, 10.05, 10.2, 11.0)] == pytest.approx([0.2, 0.15, 0.0, 0.0])

    def test_it_adds_up(self) -> None:
        clock = PlayoutClock()
        clock.sent(0.0, 0.02)
        clock.sent(0.0, 0.02)
        clock.sent(0.01, 0.02)
        assert clock.ahead(0.01) == pytest.approx(0.05)

    def test_a_pause_is_not_saved_up(self) -> None:
        clock = PlayoutClock()
        clock.sent(0.0, 0.02)
        clock.sent(5.0, 0.02)
        assert clock.ahead(5.0) == pytest.approx(0.02)

    def test_a_clear_empties_it(self) -> None:
        clock = PlayoutClock()
        clock.sent(0.0, 3.0)
        clock.cleared(1.0)
        assert clock.ahead(1.0) == 0.0
        clock.sent(1.0, 0.02)
        assert clock.ahead(1.0) == pytest.approx(0.02)

    @given(st.lists(st.tuples(st.floats(0, 0.5), st.one_of(st.none(), st.floats(0, 0.5))), max_size=60))
    def test_is_a_tank_that_drains(self, moves: list[tuple[float, float | None]]) -> None:
        clock, now, tank = PlayoutClock(), 0.0, 0.0
        for step, duration in moves:
            now += step
            tank = max(0.0, tank - step)
            assert clock.ahead(now) == pytest.approx(tank, abs=1e-9)
            if duration is None:
                clock.cleared(now)
                tank = 0.0
            else:
                clock.sent(now, duration)
                tank += duration
        assert clock.ahead(now) == pytest.approx(tank, abs=1e-9)
