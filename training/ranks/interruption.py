"""Decides when to save a training inside an epoch and when to stop it, at the same step on every rank."""

import signal
import time

from training.ranks.collectives import Collectives

EXIT_SIGTERM = 128 + signal.SIGTERM
# Schedulers send SIGTERM about 30 s before SIGKILL.
NOTICE_WITHIN_S = 2
SAVE_EVERY_S = 300


class Interruption:
    """Notes SIGTERM when it arrives; the ranks act on it at a step at which all of them meet.

    Ranks that stopped or saved at different steps would wait for each other forever. A meeting costs a message, so the
    ranks set the next one by how long the steps since the last one took; the meeting tells all ranks the same times.
    """

    def __init__(self, ranks: Collectives, save_every_steps: int):
        """save_every_steps: 0 saves by time. From now on SIGTERM alone no longer ends this process."""
        self.ranks, self.save_every_steps = ranks, save_every_steps
        self.terminated = False
        self.step = self.last_meeting = 0
        self.next_meeting = 1
        self.met_at = self.saved_at = time.monotonic()
        signal.signal(signal.SIGTERM, self._note_signal)

    def after_step(self) -> str:
        """Returns `stop` (save first), `save` or an empty string. Every rank must call it after each step."""
        self.step += 1
        save = self.save_every_steps > 0 and self.step % self.save_every_steps == 0
        if self.step < self.next_meeting and not save:
            return ""
        now = time.monotonic()
        news = self.ranks.gather((self.terminated, now - self.met_at, now - self.saved_at))
        seconds_per_step = max(since for _, since, _ in news) / (self.step - self.last_meeting)
        self.last_meeting, self.met_at = self.step, now
        self.next_meeting = self.step + max(1, int(NOTICE_WITHIN_S / max(seconds_per_step, 1e-6)))
        if any(terminated for terminated, *_ in news):
            return "stop"
        if not self.save_every_steps and news[0][2] > SAVE_EVERY_S:
            self.saved_at, save = now, True
        return "save" if save else ""

    def close(self) -> bool:
        """Lets SIGTERM end this process again. Returns whether any rank has received it so far."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return any(self.ranks.gather(self.terminated))

    def _note_signal(self, *_) -> None:
        self.terminated = True
