"""Building the profile of a machine: what to time, timing it, fitting a latency model; or adapting a donor's."""
