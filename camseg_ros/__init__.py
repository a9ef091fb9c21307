"""The ROS 2 side: a node that turns camera frames into semantic masks. Never imports torch."""
