"""A FastAPI application: a path parameter, a validated JSON body, and generated documentation.

    pip install fastapi
    tinyasgi examples.fastapi_app:app

Then try it out at http://127.0.0.1:8000/docs, or by hand:

    curl http://127.0.0.1:8000/books/1
    curl http://127.0.0.1:8000/books --json '{"title": "Momo", "year": 1973}'
"""

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field


class Book(BaseModel):
    """A book in a request. FastAPI rejects an invalid body with 422."""

    title: str = Field(min_length=1)
    year: int = Field(ge=1450, description="Year of the first printing")


class StoredBook(Book):
    """A book in a response, with its id."""

    id: int


app = FastAPI(title="Bookshelf", description="A very small library.")
shelf = {1: StoredBook(id=1, title="Flatland", year=1884)}


@app.get("/books/{book_id}")
async def find(book_id: int) -> StoredBook:
    """Return a book by its id."""
    if book_id not in shelf:
        raise HTTPException(404, "No such book.")
    return shelf[book_id]


@app.post("/books", status_code=201)
async def add(book: Book) -> StoredBook:
    """Add a book."""
    stored = StoredBook(id=len(shelf) + 1, **book.model_dump())
    shelf[stored.id] = stored
    return stored
