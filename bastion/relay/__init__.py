"""Two SSH connections joined, and nothing else.

The relay passes every channel, request and byte on as it came, after the front has allowed it. It knows no
directory, no certificates' meaning and no api: those are behind the `Front` that it is given.

    front      what the relay asks, and of whom            (pure)
    meanings   the words for what is asked                  (pure)
    requests   from payloads to meanings, and to the capability that each needs   (pure)
    answers    replies in the order of the questions       (pure)
    far        what the two ends of a channel say to each other  (pure)
    credit     flow control from end to end                (pure)
    proof      whether a signature proves a key            (pure)
    limits     numbers and algorithms                      (pure)
    silence    peers that are gone, as the kernel sees them
    tunnel     one channel and one TCP connection
    ciphers    when to change to a faster cipher           (pure)
    sentences  what the bastion says in its own name       (pure)
    wire, wire_…   the only room that touches asyncssh's internals
"""
