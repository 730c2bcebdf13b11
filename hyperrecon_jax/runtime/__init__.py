"""What a program stands on: errors, files, memory, signals, the devices of a machine and the processes of a job."""
