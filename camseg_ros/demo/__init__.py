"""`python -m camseg_ros.demo`: a bag goes through a real node over DDS, and a page shows what came back."""
