"""Questions that other packages ask the store: runs, deployments, queues, history."""
