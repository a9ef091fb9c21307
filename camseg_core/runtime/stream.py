class Stream:
    def __init__(self, carry: float, max_gap_s: float) -> None:
        self.carry, self.max_gap_s = carry, max_gap_s
