"""The images that the stand-in's own cluster needs, by the names that the airgap archive gives them.

``lab.bundle`` builds them into ``k3s-airgap-images``; the stand-in's manifests and containerd's configuration use them.
"""

from __future__ import annotations

# After the upstream version, in every component: nobody can take the stand-in for a k3s release.
VERSION_SUFFIX = "+standin1"

REFERENCES = {
    "pause": "localhost/tradewatch/pause:1",
    "coredns": "localhost/tradewatch/coredns:v1.13.1",
    "local-path-provisioner": "localhost/tradewatch/local-path-provisioner:v0.0.30",
    "busybox": "localhost/tradewatch/busybox:1",
}
