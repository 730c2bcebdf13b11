"""Networks: the U-Net, the hypernetwork that generates its weights from lambda, and their files in other formats."""
