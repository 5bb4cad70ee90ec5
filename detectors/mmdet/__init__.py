"""MMDetection 3: any of its configs, trained and run; a stand-in for its compiled operators."""
