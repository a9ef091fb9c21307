"""The networks (torch), and `CamSeg`, which joins them; `work` is free of torch."""
