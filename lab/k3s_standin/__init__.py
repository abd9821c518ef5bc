"""A stand-in for k3s in the lab: kubeadm and upstream components behind k3s's documented contract."""
