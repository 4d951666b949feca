"""The drawn scenes: `textures` (surfaces), `canvas` (camera, light, photograph), and the subjects made of them."""
