"""A FastAPI application: a path parameter, a validated JSON body, and documentation for free.

    pip install fastapi
    tinyasgi examples.fastapi_app:app

Then try it out at http://127.0.0.1:8000/docs, or by hand:

    curl http://127.0.0.1:8000/books/1
    curl http://127.0.0.1:8000/books --json '{"title": "Momo", "year": 1973}'
"""

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field


class Book(BaseModel):
    """What a client sends. FastAPI answers 422 to anything else before our code runs."""

    title: str = Field(min_length=1)
    year: int = Field(ge=1450, description="Year of the first printing")


class StoredBook(Book):
    """What a client gets: the same, and the number by which to find it again."""

    id: int


app = FastAPI(title="Bookshelf", description="A very small library.")
shelf = {1: StoredBook(id=1, title="Flatland", year=1884)}


@app.get("/books/{book_id}")
async def find(book_id: int) -> StoredBook:
    """Find a book by its number."""
    if book_id not in shelf:
        raise HTTPException(404, "No such book.")
    return shelf[book_id]


@app.post("/books", status_code=201)
async def add(book: Book) -> StoredBook:
    """Put a book on the shelf."""
    stored = StoredBook(id=len(shelf) + 1, **book.model_dump())
    shelf[stored.id] = stored
    return stored
