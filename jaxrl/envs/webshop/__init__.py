"""WebShop: finding and buying what an instruction asks for."""
