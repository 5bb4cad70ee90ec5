"""What crops are worth with a detector: AP, passes and milliseconds of many slicers."""
