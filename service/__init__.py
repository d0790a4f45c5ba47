"""The FastAPI application that serves transition-point negatives.

settings    what can be configured              problems   errors -> problem+json
app         create_app: wiring and lifespan     limits     request ids, body limits
server      serve: uvicorn, signals, logs       codecs     the three formats <-> tensors
routes      what answers where                  params     the scalars of a request
negatives   the story of one request            engine     bounded queue and model thread
openapi     the document of the API             registry   watch, verify, warm up, swap
metrics     what Prometheus sees               cache      laws that were computed before
"""
