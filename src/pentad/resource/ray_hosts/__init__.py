"""Processes on the hosts of a cluster that Ray keeps together. Imports Ray on use alone."""
