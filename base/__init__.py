"""The ground under every room: small values and borders to the machine. Imports nothing of ours.

clock, ids    time, chance and identifiers: they enter here     health     /livez, /readyz, /metrics of a process
crypto        one key ring; sealing and signing                 metrics    counts, by the one list metrics_list
credentials   provider keys, sealed for their deployment        logs       JSON lines, or lines for people
settings      one tree of settings from five sources            ewma       averages that forget with time
replies       what a Redis server answers, as values            shipped    files of the checkout and of the wheel
pids          processes, by pid and start time                  version    which Headrace this is
ports         free ones, and who holds a taken one              counts     what metrics have counted, to be shown
alarm         an event that calls whoever asked
"""
