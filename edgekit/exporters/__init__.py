"""Model -> Artifact. One file per format; each has

runtimes: which runtimes read its files
export(model, path, *, preprocess=None, parent=None) -> Artifact
"""
