"""Other words for classes of aerial images, as people type them. Written by the project's authors.

A synonym is true of every image of its class, in American and British English, singular and plural.
"""

from __future__ import annotations

from collections.abc import Mapping

# By the class name's letters alone, as `classes.readable` compares them.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "agricultural": (
        "agricultural land", "farmland", "crop fields", "cropland", "fields of crops", "farm fields",
    ),
    "airplane": (
        "airplanes", "aeroplane", "aircraft", "planes", "parked aircraft", "a plane on the apron",
        "jet", "airliner",
    ),
    "airport": (
        "airports", "an airport terminal", "an airfield", "an aerodrome", "planes at an airport",
        "airport runways and terminals", "aircraft parked at the gates",
    ),
    "bareland": (
        "bare ground", "bare soil", "barren land", "empty land", "wasteland", "exposed earth",
    ),
    "baseballdiamond": (
        "a ballpark", "baseball fields", "a baseball ground", "a baseball pitch", "softball field",
    ),
    "baseballfield": (
        "a baseball diamond", "a ballpark", "baseball fields", "a baseball ground", "softball field",
    ),
    "beach": (
        "beaches", "a sandy beach", "seashore", "the seaside", "sand and surf", "a shoreline",
        "coast with waves",
    ),
    "bridge": (
        "bridges", "a bridge over water", "a river crossing", "a road bridge", "a bridge over a river",
    ),
    "buildings": (
        "office buildings", "large buildings", "city buildings", "building roofs", "blocks of offices",
    ),
    "center": (
        "a civic centre", "a big public building", "an exhibition hall", "an arena", "a landmark",
        "a convention center", "a large modern building",
    ),
    "chaparral": (
        "shrubland", "scrubland", "bushes on dry land", "scrub", "shrubs", "scattered bushes",
    ),
    "church": (
        "churches", "a cathedral", "a chapel", "a basilica", "a place of worship",
        "a church with a tower",
    ),
    "commercial": (
        "a business district", "downtown", "a city center", "a city centre", "skyscrapers",
        "high-rise buildings", "office towers", "a shopping district",
    ),
    "denseresidential": (
        "a crowded neighborhood", "a crowded neighbourhood", "densely packed houses", "terraced houses",
        "apartment blocks", "a dense housing area", "many houses close together", "row houses",
    ),
    "desert": (
        "deserts", "sand dunes", "a sandy desert", "dunes", "arid land", "a sea of sand",
    ),
    "farmland": (
        "crop fields", "cropland", "agricultural fields", "agriculture", "farm fields", "plowed fields",
        "ploughed fields", "farms", "arable land",
    ),
    "forest": (
        "forests", "woods", "woodland", "dense trees", "a wood", "tree canopy", "green trees",
    ),
    "freeway": (
        "a highway", "a motorway", "an expressway", "a dual carriageway", "highways", "motorways",
        "a multi-lane road", "an interstate",
    ),
    "golfcourse": (
        "golf courses", "golf links", "a golf green and bunkers", "fairways", "a golf club",
    ),
    "harbor": (
        "a harbour", "a marina", "boats in a harbor", "yachts at their berths", "moored boats",
        "a yacht harbour", "docked boats", "a wharf",
    ),
    "industrial": (
        "factories", "a factory", "warehouses", "an industrial estate", "an industrial park",
        "a manufacturing plant", "industrial buildings", "industry",
    ),
    "intersection": (
        "a crossroads", "a road junction", "a street crossing", "crossroad", "road intersections",
        "a crossing of streets",
    ),
    "meadow": (
        "meadows", "grassland", "a grass field", "pasture", "green grass", "a lawn",
    ),
    "mediumresidential": (
        "a suburb", "suburban houses", "a suburban neighborhood", "a suburban neighbourhood",
        "a housing estate", "detached houses with gardens", "family homes", "houses and trees",
    ),
    "mobilehomepark": (
        "a trailer park", "mobile homes", "a caravan park", "a caravan site", "rows of trailers",
    ),
    "mountain": (
        "mountains", "a mountain range", "mountain ridges", "peaks", "hills", "highlands", "alps",
    ),
    "overpass": (
        "a flyover", "a highway overpass", "a road bridge over a highway", "an elevated road",
        "a grade-separated junction",
    ),
    "park": (
        "parks", "a city park", "a public garden", "gardens with paths", "green space in a city",
        "an urban park",
    ),
    "parking": (
        "a car park", "parked cars", "rows of cars", "a parking area", "parking lots", "vehicles parked",
        "a lot full of cars",
    ),
    "parkinglot": (
        "a car park", "parked cars", "rows of cars", "a parking area", "parking lots", "vehicles parked",
        "a lot full of cars",
    ),
    "playfields": (
        "sports fields", "sports pitches", "playing fields", "football fields", "soccer pitches",
    ),
    "playground": (
        "a sports ground", "an athletics track", "a running track", "a soccer pitch", "a football field",
        "a football pitch", "a sports field", "a soccer field with a track",
    ),
    "pond": (
        "ponds", "a small lake", "a lake", "a pool of water", "still water", "lakes",
    ),
    "port": (
        "a seaport", "ships at the docks", "a harbor", "a harbour", "ships in port", "docks", "a wharf",
        "cargo ships at the quay", "boats at a pier", "quays", "a marina",
    ),
    "railwaystation": (
        "a train station", "railway tracks", "railroad station", "a rail yard", "railroad tracks",
        "trains at a station", "railway lines",
    ),
    "resort": (
        "a holiday resort", "a hotel with a swimming pool", "hotels and pools", "a vacation resort",
        "a tourist resort", "swimming pools between hotel buildings",
    ),
    "river": (
        "rivers", "a stream", "a waterway", "a winding river", "a meandering river", "a riverbank",
        "a creek",
    ),
    "runway": (
        "an airport runway", "an airstrip", "a landing strip", "runways", "runway markings",
    ),
    "school": (
        "schools", "a school campus", "a campus", "school buildings with a sports ground",
        "a university campus", "a college",
    ),
    "sparseresidential": (
        "scattered houses", "a house in the countryside", "a farmhouse", "isolated houses",
        "a villa among trees", "a few houses", "rural homes",
    ),
    "square": (
        "a town square", "a plaza", "a city square", "a public square", "a piazza",
    ),
    "stadium": (
        "stadiums", "a football stadium", "a sports stadium", "a sports arena", "an Olympic stadium",
    ),
    "storagetanks": (
        "oil tanks", "fuel tanks", "storage tank", "oil storage tanks", "a tank farm", "an oil depot",
        "petroleum tanks", "round tanks",
    ),
    "tenniscourt": (
        "tennis courts", "a tennis club", "courts for tennis", "a tennis ground",
    ),
    "viaduct": (
        "viaducts", "a highway interchange", "a motorway junction", "a flyover", "elevated roads",
        "a road interchange", "an overpass", "a cloverleaf interchange", "a spaghetti junction",
    ),
}  # fmt: skip
