"""A seller by the published Python package:
seller.py '{"facilitator", "chain", "token", "name", "version", "price", "patience"}'."""

import asyncio
import json
import socket
import sys

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from x402 import x402ResourceServer
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.http.middleware.fastapi import payment_middleware
from x402.http.types import PaymentOption, RouteConfig
from x402.mechanisms.evm.exact import ExactEvmServerScheme
from x402.schemas import AssetAmount

settings = json.loads(sys.argv[-1])
network = f"eip155:{settings['chain']}"
config = FacilitatorConfig(url=settings["facilitator"], timeout=settings["patience"] / 1000)
server = x402ResourceServer(HTTPFacilitatorClient(config))
server.register(network, ExactEvmServerScheme())


def route(**more):
    extra = {"name": settings["name"], "version": settings["version"], **more}
    price = AssetAmount(amount=str(settings["price"]), asset=settings["token"], extra=extra)
    option = PaymentOption(
        scheme="exact", pay_to=lambda context: context.path.split("/")[2], price=price, network=network, max_timeout_seconds=60
    )
    return RouteConfig(accepts=option, description="words")


app = FastAPI()
app.middleware("http")(payment_middleware({"/exact/*": route(), "/upfront/*": route(paymentFlow="upfront")}, server))


@app.api_route("/{path:path}", methods=["GET", "POST"])
async def sell(request: Request):
    sent = await request.body()
    failure = int(request.headers.get("x-fail", 0))
    if failure:
        return JSONResponse({"error": "the shop is on fire"}, failure)
    return {"bought": request.method, "sent": sent.decode()}


listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener]))
