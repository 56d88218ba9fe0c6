"""Sources of images, captions and labels: folders, manifests and RSICD-like datasets."""
