"""The FastAPI application that serves transition-point negatives.

settings    what can be configured              problems   errors -> problem+json
app         create_app: wiring and lifespan     limits     request ids, body limits
server      serve: uvicorn, signals, logs       codecs     the three formats <-> tensors
routes      what answers where                  params     the scalars of a request
negatives   the story of one request            registry   watch, verify, warm up, swap
openapi     the document of the API             metrics    what Prometheus sees
cache       laws that were computed before      stream     rows copied for trainers

The way of a job, from the event loop to the device and back:

engine      accepts, refuses, hands over        job        a request in its terms, its ticket
room        how much is accepted                queue      whose turn is next
worker      the model thread                    batching   what is computed together
compute     prepare, sample, finish             staging    between host and device
flight      a batch on its way back             faults     what becomes of one that failed
watchdog    whether the thread gets on
"""
