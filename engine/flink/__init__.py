"""The only room that imports PyFlink: the job, the partition engine, the cluster it runs on and its checkpoints."""
