"""The networks (torch), and `CamSeg`, which joins them."""
