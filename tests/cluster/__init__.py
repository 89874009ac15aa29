"""Tests on whole processes: started, crashed, killed, stopped."""
