"""Problems and their exact metrics."""
