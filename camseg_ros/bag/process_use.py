"""What a process takes of the machine over a stretch of time: CPU and memory."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType

import psutil

PERIOD_S = 0.1
"""How often the memory is looked at."""


@dataclass(frozen=True)
class Use:
    """CPU in percent of one core, and resident memory in MB (10^6 bytes)."""

    cpu_percent: float
    rss_peak_mb: float
    rss_mean_mb: float


class ProcessUse:
    """Measures a process inside the `with` block; `use` afterwards is None where the process could not be looked at."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._rss: list[int] = []
        self._began = self._cpu = 0.0
        self.use: Use | None = None

    def __enter__(self) -> "ProcessUse":
        try:
            self._process = None if self._pid is None else psutil.Process(self._pid)
            self._began, self._cpu = time.monotonic(), self._cpu_seconds()
        except psutil.Error:
            self._process = None
        self._thread = threading.Thread(target=self._watch, name="process-use", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        try:
            seconds, cpu = time.monotonic() - self._began, self._cpu_seconds() - self._cpu
        except psutil.Error:
            return
        if self._rss and seconds > 0:
            self.use = Use(100 * cpu / seconds, max(self._rss) / 1e6, sum(self._rss) / len(self._rss) / 1e6)

    def _cpu_seconds(self) -> float:
        if self._process is None:
            return 0.0
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _watch(self) -> None:
        try:
            while self._process is not None:
                self._rss.append(self._process.memory_info().rss)
                if self._stop.wait(PERIOD_S):
                    return
        except psutil.Error:  # it ended just now; whoever waits for its answers is told so
            return
