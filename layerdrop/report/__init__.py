"""From records to tables and figures: nothing here runs anything or reads anything but records."""
