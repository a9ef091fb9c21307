"""Bags of camera images: making them, reading them, and replaying them into a running node.

Making and reading need no ROS, only the `rosbags` library; what replays (`link` and all that builds on it) needs rclpy.
"""
