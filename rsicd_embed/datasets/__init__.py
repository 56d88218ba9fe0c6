"""Where images, captions and labels come from: folders, manifests, RSICD-like data sets."""
