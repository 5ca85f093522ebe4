"""What things cost, measured; results carry the hardware they were measured on."""
