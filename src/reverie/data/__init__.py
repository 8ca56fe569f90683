"""Load arrays, tables and images; write samples back in the data's own units and format.

A Dataset keeps the user's values; `Scaler` maps them to model space (mean 0, deviation 1: one mean
and deviation for images, one per column otherwise) and back, `SymbolCoder` and `ManifoldCoder` to
symbols and to points of a manifold. Nothing is unpickled.
"""

from reverie.data.coders import ManifoldCoder as ManifoldCoder
from reverie.data.coders import PointsCoder as PointsCoder
from reverie.data.coders import SymbolCoder as SymbolCoder
from reverie.data.coders import coder_for as coder_for
from reverie.data.coders import coder_from_json as coder_from_json
from reverie.data.coders import coder_on as coder_on
from reverie.data.dataset import Column as Column
from reverie.data.dataset import Dataset as Dataset
from reverie.data.domain_coder import DomainCoder as DomainCoder
from reverie.data.identifiers import Identifier as Identifier
from reverie.data.identifiers import identifier_columns as identifier_columns
from reverie.data.identifiers import identifier_sentence as identifier_sentence
from reverie.data.identifiers import set_apart as set_apart
from reverie.data.idx import FASHION as FASHION
from reverie.data.options import Reading as Reading
from reverie.data.reading import BUILT_IN as BUILT_IN
from reverie.data.reading import load as load
from reverie.data.rows import row_codes as row_codes
from reverie.data.rows import shared_rows as shared_rows
from reverie.data.rows import some_rows as some_rows
from reverie.data.rows import split as split
from reverie.data.scaler import Scaler as Scaler
from reverie.data.stored.points import StoredPoints as StoredPoints
from reverie.data.stored.rows import StoredRows as StoredRows
from reverie.data.table_coder import TableCoder as TableCoder
from reverie.data.understood import Understanding as Understanding
from reverie.data.understood import describe as describe
from reverie.data.understood import understanding as understanding
from reverie.data.writing import ending_of as ending_of
from reverie.data.writing import in_user_layout as in_user_layout
from reverie.data.writing import save as save
from reverie.data.writing import save_rows as save_rows
from reverie.data.writing import to_image as to_image
from reverie.data.writing import to_pixels as to_pixels
