"""`make demo`: replays a bag through a real node over DDS and shows the answers on a page."""
