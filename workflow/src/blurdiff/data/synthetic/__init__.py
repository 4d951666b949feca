"""The drawn scenes: `render` (patches, camera, light), `textures` (surfaces), and the two subjects built from them."""
